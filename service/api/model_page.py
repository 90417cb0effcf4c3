"""`GET /model/`: the page about the model that is served, and `GET /model/card.md`, its card.

The pages show what the pipeline wrote into the artifact (see `service.recognition.figures`).
"""

from typing import Any

from flask import Blueprint, Flask, Response, render_template, request
from werkzeug.exceptions import NotFound

from service.recognition.figures import Figures
from service.served_model import ARTIFACT

# The page loads its style from this service, and contains the images of the mistakes (data:).
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
TEMPLATE = "model.html"
# The classes in static/model.css of a cell with fewer errors than the number. A cell with more has
# the class `many`.
SHADES = [(1, "none"), (2, "one"), (5, "few"), (10, "some")]


def init_app(app: Flask) -> None:
    """Add the routes `/model/` and `/model/card.md` to an application."""
    pages = Blueprint("model", __name__, url_prefix="/model")
    app.jinja_env.get_template(TEMPLATE)  # compiles it, so that no request waits for that

    @pages.get("/")
    def index() -> Response:
        artifact = request.environ[ARTIFACT]
        figures: Figures | None = artifact.figures
        page = render_template(
            TEMPLATE,
            artifact=artifact,
            figures=figures,
            accuracies=_accuracies(figures) if figures else [],
            shade=_shade,
        )
        response = Response(page, mimetype="text/html")
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @pages.get("/card.md")
    def card() -> Response:
        figures: Figures | None = request.environ[ARTIFACT].figures
        if figures is None:
            raise NotFound("The artifact has no model card; export it with `dvc repro export`.")
        return Response(figures.card, mimetype="text/markdown")

    app.register_blueprint(pages)


def _accuracies(figures: Figures) -> list[tuple[str, float]]:
    """Return what was measured, and the accuracy on it."""
    metrics: dict[str, Any] = figures.metrics
    corruptions = {name.replace("_", " "): it for name, it in metrics["robustness"].items()}
    handwriting = {name: found["accuracy"] for name, found in metrics["handwriting"].items()}
    return [
        (f"{figures.name}, the test split", metrics["accuracy"]),
        (
            "without images whose label most reviewers reject",
            metrics["accuracy_without_rejected_labels"],
        ),
        *((f"other handwriting: {name}", accuracy) for name, accuracy in handwriting.items()),
        ("mean over the corruptions below", metrics["robustness_mean"]),
        *corruptions.items(),
    ]


def _shade(label: int, prediction: int, count: int) -> str:
    """Return the class of a cell of the confusion matrix."""
    if label == prediction:
        return "right"
    return next((name for limit, name in SHADES if count < limit), "many")
