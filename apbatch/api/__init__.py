"""REST, GraphQL and the web pages (to come)."""
