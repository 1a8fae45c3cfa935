"""The commands and their options, one file a subject; what they do is in the modules beside this folder."""
