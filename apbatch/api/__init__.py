"""The catalogue for people and programs: REST, GraphQL, TAP, OAI-PMH and web pages in one service."""
