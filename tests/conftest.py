"""What all tests share: the environment of the book's kernels, and how nbval compares."""

import os

from cvlab.run import KERNEL_ENVIRONMENT

os.environ.update(KERNEL_ENVIRONMENT)


def pytest_collection_modifyitems(items):
    """Let nbval pass over stderr, as the committed outputs have none (tools/book.py drops it)."""
    for item in items:
        if hasattr(item.parent, "skip_compare") and "stderr" not in item.parent.skip_compare:
            item.parent.skip_compare += ("stderr",)
