"""Harvests of other archives: their records become files of a site, which is registered like any other."""
