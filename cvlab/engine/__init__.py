"""What is there for speed or for the backends alone; readers of the book need not open it."""
