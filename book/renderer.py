"""Say whether the renderer, or an archive that it made, has changed since the renderer's tests passed.

    python book/renderer.py             # status 1 where it has
    python book/renderer.py --passed    # the tests have passed: write down for which files

`make test` then runs the renderer's tests, which need 200 MB of packages of their own, where they can tell something.
"""

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTED = ROOT / "render" / "tested.sha256"
WHAT_COUNTS = ("render/*.py", "render/requirements.txt", "data/toybox/*.zip")


def main():
    today = digest(ROOT)
    if "--passed" in sys.argv:
        TESTED.write_text(today + "\n", encoding="utf-8")
        return 0
    if TESTED.exists() and TESTED.read_text(encoding="utf-8").strip() == today:
        return 0
    print("the renderer or an archive has changed since the renderer's tests passed: they run now")
    return 1


def digest(root):
    """Give the SHA-256 of the names and contents of the renderer's files and of the archives."""
    sha256 = hashlib.sha256()
    for path in sorted(path for pattern in WHAT_COUNTS for path in root.glob(pattern)):
        sha256.update(f"\0{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return sha256.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
