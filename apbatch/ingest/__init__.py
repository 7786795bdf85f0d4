"""Sites: registration in place, mirror."""
