"""Slow reference definitions, re-written from the papers, that share no code with pellucid."""
