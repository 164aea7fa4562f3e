"""Which Chromium prints the book, scores its pages and tests them."""

import os
import shutil


def chromium():
    """Give the path of the browser that CHROMIUM names, or else of the first that is installed; None without one."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if name and (path := shutil.which(name))), None)
