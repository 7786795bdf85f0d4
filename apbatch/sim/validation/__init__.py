"""The Monte Carlo against what others found: simulations of collaborations, published parametrisations, geometry."""
