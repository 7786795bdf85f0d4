"""Lines of text and the numbers in them, with what can't be read told by place and reason."""
