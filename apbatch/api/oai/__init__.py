"""OAI-PMH 2.0: the files of the catalogue as records that libraries' programs harvest."""
