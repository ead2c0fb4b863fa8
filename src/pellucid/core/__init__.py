"""How do we look inside a network? Record it once; pull back under any rule, replay under any edit."""
