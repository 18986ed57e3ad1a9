package bench;

import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.state.Stores;

/**
 * The job of the benchmark on Kafka Streams: recent items per customer, co-occurrence counts per
 * item, a top-10 list per touched customer.
 *
 * <pre>
 * clickstream ─► Learn (RocksDB: recent items) ─► pairs ─► Relate (RocksDB: neighbours of an item)
 *                  │  lists of touched customers            │
 *                  ▼                                        ▼
 *                lists                                neighbours ─► global store, read by Learn
 * </pre>
 *
 * Caches, linger and a flush interval are set as one would for throughput; lists and tables are
 * sent once per interval and key, like the batches of the other contenders.
 */
public final class Main {
    private Main() {}

    /** Start from the variables BENCH_*; runs until SIGTERM. */
    public static void main(String[] arguments) throws Exception {
        Map<String, String> env = System.getenv();
        String group = env.get("BENCH_GROUP");
        int previous = Integer.parseInt(env.get("BENCH_PREVIOUS"));
        Progress progress = new Progress(env.get("BENCH_PROGRESS"));
        String pairs = group + "-pairs";
        String neighbours = group + "-neighbours";

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, group);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, env.get("BENCH_BOOTSTRAP"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, env.get("BENCH_DIR"));
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, env.get("BENCH_THREADS"));
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 2000);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 20);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 262_144);

        Deserializer<String> text = Serdes.String().deserializer();
        Serializer<String> fromText = Serdes.String().serializer();
        Deserializer<byte[]> raw = Serdes.ByteArray().deserializer();
        Serializer<byte[]> fromRaw = Serdes.ByteArray().serializer();
        Topology topology = new Topology();
        topology.addSource("events", text, raw, env.get("BENCH_TOPIC"));
        topology.addProcessor("learn", () -> new Learn(previous, progress), "events");
        topology.addStateStore(
            Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore(Learn.RECENT), Serdes.String(), Serdes.ByteArray())
                .withCachingEnabled(),
            "learn");
        topology.addSink(Learn.PAIRS, pairs, fromText, fromRaw, "learn");
        topology.addSink(Learn.LISTS, env.get("BENCH_OUT_TOPIC"), fromText, fromRaw, "learn");
        topology.addSource("pair-source", text, raw, pairs);
        topology.addProcessor("relate", () -> new Relate(progress), "pair-source");
        topology.addStateStore(
            Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore(Relate.TABLE), Serdes.String(), Serdes.ByteArray())
                .withCachingEnabled(),
            "relate");
        topology.addSink(Relate.OUT, neighbours, fromText, fromRaw, "relate");
        topology.addGlobalStore(
            Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore(Learn.NEIGHBOURS), Serdes.String(), Serdes.ByteArray())
                .withLoggingDisabled(),
            "neighbour-source", text, raw, neighbours, "neighbour-copy", Copy::new);

        KafkaStreams streams = new KafkaStreams(topology, settings);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            ended.countDown();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler
                .StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        ended.await();
    }
}
