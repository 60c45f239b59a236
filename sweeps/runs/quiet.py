"""Until a command begins, Ctrl-C ends it silently: there is nothing to stop yet.

To be imported first by a module that is run as a program; imports nothing but what Python has loaded already.
"""

import _signal as signal  # type: ignore[import-not-found]  # the module signal takes as long again as all of this

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
