"""Estimators: one library a file, each with the same functions (`library.Library`)."""
