"""Drive the playground's engine from Python, in a page of a headless browser: for its tests and measurements.

    with served(folder) as address:
        engine = Engine(browser.new_context(), address)
        engine.ask("classify", images=image, model="eyes")

The folder holds what `assemble` puts there; every other host is out of reach.
"""

import base64
import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import export
import numpy as np

HERE = Path(__file__).resolve().parent
# What the page does: it asks the worker, gives the answer, and turns arrays into text.
PAGE = """<!doctype html><meta charset="utf-8"><title>engine</title>
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self';
    connect-src 'self'">
<link rel="icon" href="data:,"><script src="drive.js"></script>"""
SCRIPT = """"use strict";
let worker, next = 0;
const waiting = new Map(), kinds = { Float32Array, Uint8Array };
function start() {
  worker?.terminate();
  worker = new Worker("worker.js");
  worker.onmessage = ({ data }) => {
    const { resolve, progress } = waiting.get(data.id);
    if (data.progress) progress.push(data.progress);
    else resolve({ ...(data.done ? packed(data.done) : { error: data.error }), progress });
  };
}
function packed(done) {
  for (const [key, value] of Object.entries(done)) {
    const kind = Object.entries(kinds).find(([, type]) => value instanceof type)?.[0];
    if (kind) done[key] = { kind, base64: text(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) };
  }
  return done;
}
function text(bytes) {
  let letters = "";
  for (let i = 0; i < bytes.length; i += 32768) letters += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(letters);
}
function ask(message, image) {
  if (!worker) start();
  if (image) {
    const data = Uint8ClampedArray.from(atob(image.base64), (letter) => letter.charCodeAt(0));
    message = { ...message, image: { width: image.width, height: image.height, data } };
  }
  const id = next++, began = performance.now();
  return new Promise((resolve) => {
    const finish = (done) => resolve({ ...done, elapsed: (performance.now() - began) / 1000 });
    waiting.set(id, { resolve: finish, progress: [] });
    worker.postMessage({ id, ...message });
  });
}
"""


def assemble(folder: Path) -> Path:
    """Put the engine into a folder: the models, the runtime, the worker, and a page that asks it."""
    export.export(folder)
    for source, name in [
        *export.runtime_files(),
        *((HERE / file, file) for file in ("worker.js", "network.js", "maths.js")),
    ]:
        shutil.copyfile(source, folder / name)
    (folder / "index.html").write_text(PAGE, encoding="utf-8")
    (folder / "drive.js").write_text(SCRIPT, encoding="utf-8")
    return folder


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine, and give its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Engine:
    """The worker in a page of its own.

    Attributes:
        requests: addresses of all requests. complaints: warnings and errors in the console.
    """

    def __init__(self, context: Any, address: str):
        self.page, self.requests, self.complaints = context.new_page(), [], []
        context.on("request", lambda request: self.requests.append(request.url))  # the worker's, too
        context.on("console", lambda message: self.complaints.append(message.text))
        self.page.goto(f"{address}/index.html")

    def restart(self):
        """Start a new worker, which has loaded nothing."""
        self.page.evaluate("start()")

    def ask(self, what: str, image: np.ndarray | None = None, **options: Any) -> dict:
        """Ask the worker, and wait for its answer.

        Args:
            what: "classify", for example. image: (H, W, 3) uint8. options: what else the message holds.

        Returns:
            dict as the worker gives it, arrays as NumPy arrays; also "progress", all reports of it, and "elapsed", the
            seconds that the page has waited.

        Raises:
            RuntimeError: with the worker's sentence, where it answers with an error.
        """
        given = None
        if image is not None:
            rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
            text = base64.b64encode(np.ascontiguousarray(rgba).tobytes()).decode()
            given = {"width": image.shape[1], "height": image.shape[0], "base64": text}
        answer = self.page.evaluate("([message, image]) => ask(message, image)", [{"do": what, **options}, given])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        dtypes = {"Float32Array": np.float32, "Uint8Array": np.uint8}
        for key, value in answer.items():
            if isinstance(value, dict) and "base64" in value:
                array = np.frombuffer(base64.b64decode(value["base64"]), dtypes[value["kind"]])
                answer[key] = array.reshape(answer["height"], answer["width"])
        return answer
