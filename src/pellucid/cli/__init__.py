"""From a shell."""
