package bench;

import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** The neighbours of an item, at most 50; published once per interval. */
final class Relate implements Processor<String, byte[], String, byte[]> {
    static final String TABLE = "table";
    static final String OUT = "neighbour-sink";
    static final Duration FLUSH = Duration.ofSeconds(2); // as often as the product refreshes similar: (refresh_s)
    private static final int NEIGHBOURS_MAX = 50;

    private final Progress progress;
    private final Set<String> changed = new LinkedHashSet<>();
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, byte[]> table;

    Relate(Progress progress) {
        this.progress = progress;
    }

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
        this.context = context;
        table = context.getStateStore(TABLE);
        context.schedule(FLUSH, PunctuationType.WALL_CLOCK_TIME, now -> flush(now));
    }

    @Override
    public void process(Record<String, byte[]> pairs) {
        Map<String, Float> counts = new HashMap<>(Counts.decode(table.get(pairs.key())));
        Counts.decode(pairs.value()).forEach((other, weight) -> {
            if (!counts.containsKey(other) && counts.size() >= NEIGHBOURS_MAX) {
                counts.remove(counts.entrySet().stream().min(Map.Entry.comparingByValue()).get().getKey());
            }
            counts.merge(other, weight, Float::sum);
        });
        table.put(pairs.key(), Counts.encode(counts));
        changed.add(pairs.key());
        progress.merged();
    }

    private void flush(long now) {
        for (String item : changed) {
            context.forward(new Record<>(item, table.get(item), now), OUT);
        }
        changed.clear();
    }
}
