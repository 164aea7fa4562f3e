"""What is there for speed alone; readers of the book need not open it."""
