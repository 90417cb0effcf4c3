"""Drawings, and how the tests of the page at `GET /` put them on its pad."""

import base64
import math
import re
from itertools import pairwise
from pathlib import Path

import requests
from playwright.sync_api import Locator, Page, expect

from tests.conftest import PROJECT, Server

SAMPLES = sorted((PROJECT / "service/api/static/samples").glob("*.png"))
ANSWER = re.compile(
    r"^(Looks like (an? \d|[\d?]{2,}), (\d\d% sure|where .*)"
    r"|Could be (an? )?\d+ \(\d+%\) or (an? )?\d+ \(\d+%\)"
    r"|Probably not a (digit|number))$"
)
REJECTED = "Failed to load resource"  # the console message of every response from 400 on

Point = tuple[float, float]  # x and y in the unit square; y points down
Strokes = list[list[Point]]


def arc(x: float, y: float, width: float, height: float, start: int, end: int) -> list[Point]:
    """Return points on an ellipse. The angles are in degrees: 0 is right, 90 is down."""
    step = 15 if end > start else -15
    angles = [math.radians(degrees) for degrees in range(start, end + step, step)]
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


DIGITS: list[Strokes] = [
    [arc(0.5, 0.5, 0.21, 0.34, -90, -450)],
    [[(0.52, 0.16), (0.5, 0.5), (0.48, 0.84)]],
    [[*arc(0.5, 0.34, 0.2, 0.18, -160, 30), (0.5, 0.62), (0.29, 0.83), (0.5, 0.83), (0.75, 0.83)]],
    [[*arc(0.48, 0.33, 0.19, 0.17, -150, 90), *arc(0.48, 0.67, 0.22, 0.18, -90, 150)]],
    [[(0.36, 0.16), (0.3, 0.52), (0.5, 0.52), (0.74, 0.52)], [(0.66, 0.16), (0.64, 0.84)]],
    [
        [(0.36, 0.17), (0.34, 0.46), *arc(0.47, 0.63, 0.23, 0.21, -120, 150)],
        [(0.36, 0.17), (0.71, 0.16)],
    ],
    [[(0.6, 0.15), (0.44, 0.3), (0.34, 0.5), *arc(0.5, 0.66, 0.18, 0.18, 180, -180)]],
    [[(0.27, 0.18), (0.5, 0.18), (0.73, 0.18), (0.6, 0.45), (0.46, 0.84)]],
    [[*arc(0.5, 0.33, 0.17, 0.17, 90, 450), *arc(0.5, 0.67, 0.19, 0.17, -90, 270)]],
    [[*arc(0.5, 0.34, 0.19, 0.18, 0, -360), (0.67, 0.55), (0.6, 0.85)]],
]

# Other styles: those of several countries' schools, of print, and of haste.
STYLES: dict[str, Strokes] = {
    "0, narrow": [arc(0.5, 0.5, 0.13, 0.35, -90, 270)],
    "0, round": [arc(0.5, 0.5, 0.33, 0.33, -60, 300)],
    "1 with an upstroke": [[(0.37, 0.36), (0.54, 0.16), (0.54, 0.84)]],
    "1 with a long upstroke": [[(0.32, 0.48), (0.57, 0.16), (0.55, 0.85)]],
    "1 with an upstroke and a foot": [
        [(0.38, 0.33), (0.52, 0.16), (0.52, 0.84)],
        [(0.36, 0.84), (0.68, 0.84)],
    ],
    "1, slanted": [[(0.62, 0.15), (0.42, 0.85)]],
    "2 with a loop": [
        [
            *arc(0.5, 0.33, 0.18, 0.17, -160, 45),
            (0.42, 0.74),
            *arc(0.37, 0.75, 0.07, 0.08, 60, 330),
            (0.56, 0.82),
            (0.76, 0.8),
        ]
    ],
    "2 like a z": [[(0.3, 0.2), (0.69, 0.2), (0.29, 0.82), (0.72, 0.82)]],
    "3 with a flat top": [
        [(0.31, 0.17), (0.69, 0.17), (0.48, 0.43), *arc(0.47, 0.64, 0.22, 0.2, -85, 150)]
    ],
    "4, closed": [[(0.63, 0.84), (0.63, 0.16), (0.28, 0.63), (0.78, 0.63)]],
    "4 like a chair": [
        [(0.33, 0.18), (0.33, 0.52), (0.68, 0.52)],
        [(0.68, 0.18), (0.68, 0.85)],
    ],
    "5 in one stroke": [
        [(0.7, 0.17), (0.38, 0.17), (0.35, 0.46), *arc(0.48, 0.63, 0.22, 0.2, -115, 140)]
    ],
    "6, straight": [[(0.63, 0.15), (0.35, 0.6), *arc(0.5, 0.68, 0.16, 0.16, 190, -170)]],
    "6, curled": [
        [*arc(0.57, 0.38, 0.23, 0.24, -50, -180), *arc(0.5, 0.65, 0.17, 0.18, 180, -180)]
    ],
    "7, crossed": [[(0.28, 0.18), (0.72, 0.18), (0.46, 0.84)], [(0.36, 0.5), (0.7, 0.5)]],
    "7 with a serif": [[(0.28, 0.32), (0.28, 0.18), (0.73, 0.18), (0.55, 0.5), (0.47, 0.85)]],
    "7, crossed, with a serif": [
        [(0.28, 0.3), (0.28, 0.18), (0.73, 0.18), (0.48, 0.85)],
        [(0.4, 0.54), (0.7, 0.5)],
    ],
    "8 of two circles": [arc(0.5, 0.32, 0.15, 0.15, 0, 360), arc(0.5, 0.66, 0.19, 0.19, 0, 360)],
    "9, straight": [[*arc(0.5, 0.34, 0.18, 0.18, 0, -360), (0.68, 0.85)]],
    "9 like a g": [[*arc(0.5, 0.33, 0.17, 0.17, -20, -380), *arc(0.49, 0.68, 0.18, 0.16, 0, 140)]],
}


def wait_for_scripts(page: Page) -> None:
    """Wait until the page has loaded its language, which may be after the browser's load event."""
    page.locator("body[data-state]").wait_for()


def draw(page: Page, strokes: Strokes) -> None:
    wait_for_scripts(page)
    pad = page.locator("#ink")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    scaled = [[(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
              for stroke in strokes]  # fmt: skip
    for stroke in scaled:
        page.mouse.move(*stroke[0])
        page.mouse.down()
        for point in stroke[1:]:
            page.mouse.move(*point, steps=2)
        page.mouse.up()


def draw_at_once(page: Page, strokes: Strokes, *, begun: bool = False) -> None:
    """Send the pointer events of a drawing from within the page, which takes a tenth of the time.

    A hand reports many points of each stroke; with the corners alone, the page would round them.
    If `begun`, only the first point of the last stroke is sent.
    """
    wait_for_scripts(page)
    page.locator("#ink").evaluate(
        """(pad, [strokes, begun]) => {
            const { left, top, width, height } = pad.getBoundingClientRect();
            const send = (kind, [x, y]) => pad.dispatchEvent(new PointerEvent(kind, {
                pointerId: 1, isPrimary: true, clientX: left + x * width, clientY: top + y * height,
            }));
            for (const stroke of strokes) {
                send("pointerdown", stroke[0]);
                if (begun && stroke === strokes.at(-1)) return;
                for (const point of stroke) send("pointermove", point);
                send("pointerup", stroke.at(-1));
            }
        }""",
        [
            [
                [
                    (x + (next_x - x) * part / 8, y + (next_y - y) * part / 8)
                    for (x, y), (next_x, next_y) in pairwise(stroke)
                    for part in range(9)
                ]
                for stroke in strokes
            ],
            begun,
        ],
    )


def clear(page: Page) -> None:
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_have_text("")


def reading(page: Page) -> Locator:
    """Return the large answer, whose attribute `data-written` has its characters."""
    return page.locator("#digit")


def recognized(server: Server, file: Path) -> tuple[int, int]:
    """Return the label of a file from the service, and its probability in percent, rounded down."""
    with file.open("rb") as content:
        answer = requests.post(
            f"{server.url}/recognize?probabilities=true", files={"image": content}, timeout=30
        ).json()
    return answer["labels"][0], int(max(answer["probabilities"][0]) * 100)


def expect_answer(page: Page, server: Server, file: Path) -> None:
    """Wait until the page shows the label and the probability of a file."""
    label, percent = recognized(server, file)
    row = page.locator("tr.best")
    expect(row.locator("th")).to_have_text(str(label))
    expect(row.locator("td").last).to_have_text(re.compile(rf"^{min(percent, 99)}\.\d%$"))
    expect(page.get_by_role("status")).to_have_text(ANSWER)


def requests_of(page: Page) -> list[str]:
    """Return the list of the pictures that the page sends, which grows."""
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url) if "?" in request.url else None)
    return urls


def transfer(page: Page, how: str, file: Path, kind: str) -> None:
    """Drop a file on the page, or paste it."""
    page.evaluate(
        """([how, name, kind, content]) => {
            const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name, { type: kind }));
            const options = { bubbles: true, cancelable: true };
            const event = how === "drop"
                ? new DragEvent("drop", { dataTransfer: data, ...options })
                : new ClipboardEvent("paste", { clipboardData: data, ...options });
            document.getElementById("pad").dispatchEvent(event);
        }""",
        [how, file.name, kind, base64.b64encode(file.read_bytes()).decode()],
    )


def ink(page: Page) -> int:
    """Return the number of pixels of the pad that have ink."""
    return page.evaluate(
        """() => {
            const canvas = document.getElementById("ink");
            const { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d");
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, width, height);
            return data.filter((value, index) => index % 4 === 3 && value > 0).length;
        }"""
    )


def placed(strokes: Strokes, left: float, top: float, size: float) -> Strokes:
    """Return a drawing that is scaled and moved."""
    return [[(left + x * size, top + y * size) for x, y in stroke] for stroke in strokes]


def number(text: str, size: float = 0.24) -> Strokes:
    """Return the digits of a number beside each other."""
    digits = [
        placed(DIGITS[int(digit)], 0.01 + place * size, 0.35, size)
        for place, digit in enumerate(text)
    ]
    return [stroke for strokes in digits for stroke in strokes]
