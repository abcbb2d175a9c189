"""One thread for each session of ONNX Runtime: the workers of a test run share the cores, and idle threads spin."""

import functools

import onnxruntime


def by_default():
    """From here on a session that does not say how many threads it wants takes one."""
    start = onnxruntime.InferenceSession.__init__

    @functools.wraps(start)
    def started(session, path_or_bytes, sess_options=None, *args, **more):
        options = sess_options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.intra_op_num_threads or 1
        start(session, path_or_bytes, options, *args, **more)

    onnxruntime.InferenceSession.__init__ = started
