"""Takes a plan or an artifact and writes files for other programs. Other tools' names appear only here."""
