"""stream_app: real-time customer-journey recommendations from a clickstream in Kafka.

Start reading at :mod:`stream_app.pipeline`.
"""
