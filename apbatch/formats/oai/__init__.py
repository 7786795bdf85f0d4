"""Records of archives as OAI-PMH gives them: Dublin Core and DataCite."""
