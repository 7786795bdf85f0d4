"""Cases of the service: what REST adds to a catalogue, streams, load, memory, and the page in a browser."""
