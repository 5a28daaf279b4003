"""The camera: in a window of this machine, or in a notebook through the browser."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferlib import clips, labels, pictures, prediction, runtimes

if TYPE_CHECKING:
    import anywidget

TITLE = "ferlib: q ends"


def window(*, model: runtimes.Model = "compact", camera: int = 0) -> int:
    """Shows what the camera sees, with each face framed and named, until q is pressed.

    Args:
        model: As for `prediction.predict`.
        camera: The camera's number.

    Returns:
        How many frames were shown.

    Raises:
        RuntimeError: If there is no window here.
        ValueError: If the camera cannot be read.
        ImportError: If the extra `faces` is not installed.
    """
    import cv2

    where = "The camera in notebook 08 works in any browser."
    has_screen = sys.platform != "linux" or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
    if not has_screen:
        raise RuntimeError(f"There is no screen here to open a window on. {where}")
    opened = prediction.open_classifier(model)
    live, shown = clips.Live(clips.Follower(opened, detect=True)), 0
    try:
        cv2.namedWindow(TITLE)
    except cv2.error:
        raise RuntimeError(
            "This OpenCV (opencv-python-headless) has no windows: pip uninstall -y "
            f'opencv-python-headless, then pip install "opencv-python<5". {where}'
        ) from None
    for _, seconds, picture in clips.frames(camera):
        image = clips.annotated(live.see(picture(), seconds), opened.classes)
        cv2.imshow(TITLE, np.asarray(image)[..., ::-1])
        shown += 1
        is_closed = cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1
        if cv2.waitKey(1) & 0xFF in (ord("q"), 27) or is_closed:
            break
    cv2.destroyAllWindows()
    return shown


def widget(*, model: runtimes.Model = "compact") -> anywidget.AnyWidget:
    """Makes a widget that shows the browser's camera with each face framed and named.

    One picture at a time goes to the kernel of the notebook, and nowhere else; the next one when
    the answer is back. Nothing is kept.

    Args:
        model: As for `prediction.predict`.

    Returns:
        The widget; JupyterLab and Colab show it.

    Raises:
        ImportError: If the extra `lab` or `faces` is not installed.
    """
    runtimes.need("lab", "anywidget", what="The camera in a notebook")
    runtimes.need("faces", "mtcnn", what="To find faces")
    import anywidget

    opened = prediction.open_classifier(model)
    live = clips.Live(clips.Follower(opened, detect=True))
    colours = labels.colours(opened.classes)

    def answer(view: Any, content: dict, buffers: list) -> None:
        try:
            picture = pictures.open_picture(io.BytesIO(buffers[0])).convert("RGB")
            frame = live.see(np.asarray(picture), time.monotonic())
            faces = []
            for person in frame.persons:
                shares = [round(float(share), 4) for share in person.probabilities]
                face = {"person": person.number, "box": person.box}
                faces.append(face | {"shares": dict(zip(opened.classes, shares, strict=True))})
            view.send({"faces": faces, "colours": colours})
        except Exception as error:  # shown in the widget: a kernel's messages are not
            view.send({"problem": str(error)})

    class Camera(anywidget.AnyWidget):
        _esm = Path(__file__).with_name("camera.js").read_text(encoding="utf-8")

    made = Camera()
    made.on_msg(answer)
    return made
