"""redis-py, or None where it is not installed."""

import sys

try:
    import redis
except ImportError:  # a Python that is not Debian's; the package is Python alone
    sys.path.append("/usr/lib/python3/dist-packages")
    try:
        import redis
    except ImportError:
        redis = None
