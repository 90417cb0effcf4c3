"""The outputs of the stages, as `dvc.yaml` names them, relative to the folder of `dvc.yaml`.

The stages run in that folder.
"""

from pathlib import Path

DATA = Path("data")
IDX = DATA / "idx"
PNG = DATA / "png"
HANDWRITING = DATA / "handwriting"
DRAWN_DIGITS = DATA / "drawn_digits"
NON_DIGITS = DATA / "non_digits"
NETWORK = DATA / "network"
TRAINING = DATA / "training"
EVALUATION = DATA / "evaluation"
PICTURES = DATA / "pictures"
MODEL = DATA / "model"
MANIFEST = DATA / "model.sha256"
GRAPH = DATA / "mnistmodel"
MODEL_CARD = DATA / "model_card.md"
