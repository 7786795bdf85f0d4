"""GraphQL over the same door as REST: what a request may cost, its schema, its address."""
