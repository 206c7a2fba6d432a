"""Takes a plan or an artifact and writes what other programs load. Other tools' names appear only here."""
