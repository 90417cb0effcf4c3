"""Recognition of millions of pictures on Ray Data: `python -m service.bulk INPUT... --out DIR`.

A job is cut into parts, which are recognised in any order, on any node, and more than once if a
node dies. A part is one Parquet file of the output, which is there whole or not at all, and the
same however often it is made: so no row is lost, and none is doubled.
"""
