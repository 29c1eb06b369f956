"""A plugin for pytest, `-p tests.portable`: all calls go through Python.

As in a Python without the GIL, or where objects are not laid out as native code expects.
"""

import sysconfig

_get = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: 1 if name == "Py_GIL_DISABLED" else _get(name)
