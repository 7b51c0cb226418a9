"""The examples. The first line of each file is the command that runs it, from the folder above this one."""
