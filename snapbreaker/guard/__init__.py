"""Copies a file before its first writer gets it: what makes hard links stand for copies.

A hard link keeps the content of a file that is deleted or replaced. It does not keep what is overwritten in place:
so for each filesystem with such links one process, the guard, is asked by the kernel before any file is opened.
"""
