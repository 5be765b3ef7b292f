"""Forms of the layers for CPU. `select.py` chooses a form; the other modules hold the operator forms.

The plain network needs nothing of this folder: each layer has the same function in `forward`, in MindSpore's usual
operators.
"""
