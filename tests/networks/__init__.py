"""Networks for tests: small ones as users write them (`awkward`), and whole architectures (`zoo`)."""
