"""Stands in for Colab's own module, whose presence is all that `cvlab` asks about."""
