"""The version of this package, in one place for the code; pyproject.toml declares the same."""

VERSION = "0.1.0"
