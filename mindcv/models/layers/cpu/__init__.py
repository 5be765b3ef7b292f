"""Forms of the layers for CPU. The module `select` chooses a form. The other modules contain the operator forms.

Each layer also computes the same function in `forward` with MindSpore's usual operators, so a network runs without this
package too. See decision 0035.
"""
