"""What the catalogue keeps of an archive's record; a site may say the same of its own files."""

from __future__ import annotations

from apbatch.formats.reader import Attribute

TITLE = Attribute("title", "string", "Title, as libraries list it.")
CREATORS = Attribute("creators", "string", "Who made the data; several separated by '; '.")
PUBLISHER = Attribute("publisher", "string", "Archive that publishes the data.")
PUBLISHED = Attribute("published", "date", "Date of publication.")
KIND = Attribute("resource_type", "string", "What the data are, in the archive's words.")
ABSTRACT = Attribute("abstract", "string", "What the data are about.")
DOI = Attribute("doi", "string", "DOI of the data, or of the collection to which they belong.")
URL = Attribute("url", "string", "Where the archive gives the data.")
LICENCE = Attribute("licence", "string", "Licence, or terms of use.")
LICENCE_URL = Attribute("licence_url", "string", "Where the licence can be read.")
DATA_FORMAT = Attribute("data_format", "string", "Format of the data, in the archive's words.")
EXTENT = Attribute("extent", "string", "Size of the data, in the archive's words.")
IDENTIFIER = Attribute("identifier", "string", "Identifier of the record at its archive.")
SUBJECTS = Attribute("subjects", "string", "Subjects; several separated by '; '.")

ALL = (
    TITLE, CREATORS, PUBLISHER, PUBLISHED, KIND, ABSTRACT, DOI, URL, LICENCE, LICENCE_URL, DATA_FORMAT, EXTENT,
    IDENTIFIER, SUBJECTS,
)  # fmt: skip
