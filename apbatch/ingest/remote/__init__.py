"""Sites that are elsewhere: what their agents tell, and the blocks that they give."""
