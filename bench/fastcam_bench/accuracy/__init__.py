"""How right results are: against autograd, peers and annotations."""
