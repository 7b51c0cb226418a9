"""The servers of the notes, each as a raw TCP handler on its engine. Try them with `nc 127.0.0.1 8000`."""
