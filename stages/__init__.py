import os

PARENT = os.getppid()  # of this process, taken before anything slow is imported
