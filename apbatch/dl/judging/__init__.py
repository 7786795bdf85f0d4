"""What scores are worth: quality factor, rivals, bootstrap, report."""
