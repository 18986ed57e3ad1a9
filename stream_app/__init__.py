"""stream_app: real-time customer-journey recommendations from a clickstream in Kafka.

Start reading at :mod:`stream_app.pipeline`.
"""

from stream_app.kernel_cache import choose_kernel_cache

choose_kernel_cache()
