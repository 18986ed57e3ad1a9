package bench;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Recent items of a customer; pairs to the items' owners; lists of touched customers. */
final class Learn implements Processor<String, byte[], String, byte[]> {
    static final String RECENT = "recent";
    static final String NEIGHBOURS = "neighbours";
    static final String PAIRS = "pairs-sink";
    static final String LISTS = "lists-sink";
    static final Duration FLUSH = Duration.ofMillis(100);
    private static final int LIST_SIZE = 10;
    private static final int CONTEXT = 5;
    private static final JsonFactory JSON = new JsonFactory();

    private final int previous;
    private final Progress progress;
    private final Set<String> touched = new LinkedHashSet<>();
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, byte[]> recent;
    private KeyValueStore<String, byte[]> neighbours;

    Learn(int previous, Progress progress) {
        this.previous = previous;
        this.progress = progress;
    }

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
        this.context = context;
        recent = context.getStateStore(RECENT);
        neighbours = context.getStateStore(NEIGHBOURS);
        context.schedule(FLUSH, PunctuationType.WALL_CLOCK_TIME, now -> flush(now));
    }

    @Override
    public void process(Record<String, byte[]> event) {
        String item = item(event.value());
        if (item != null) {
            learn(event, item);
        }
        progress.applied();
    }

    /** One record to each previous item (forward), one to the item with all of them (backward). */
    private void learn(Record<String, byte[]> event, String item) {
        List<String> items = new ArrayList<>(Counts.decode(recent.get(event.key())).keySet());
        Map<String, Float> backward = new LinkedHashMap<>();
        int sent = 0;
        for (int d = 0; d < Math.min(previous, items.size()); d++) {
            float weight = (float) Math.pow(d + 1, -1.5);
            String other = items.get(d);
            if (!other.equals(item)) {
                context.forward(new Record<>(other, Counts.encode(Map.of(item, weight)), event.timestamp()), PAIRS);
                backward.put(other, weight);
                sent++;
            }
        }
        if (!backward.isEmpty()) {
            context.forward(new Record<>(item, Counts.encode(backward), event.timestamp()), PAIRS);
            sent++;
        }
        progress.sent(sent, 2 * backward.size());
        Map<String, Float> kept = new LinkedHashMap<>();
        kept.put(item, 1f);
        for (String other : items) {
            if (kept.size() < CONTEXT) {
                kept.putIfAbsent(other, 1f);
            }
        }
        recent.put(event.key(), Counts.encode(kept));
        touched.add(event.key());
    }

    private void flush(long now) {
        for (String customer : touched) {
            context.forward(new Record<>(customer, list(customer), now), LISTS);
        }
        progress.listed(touched.size());
        touched.clear();
    }

    private byte[] list(String customer) {
        Map<String, Float> scores = new HashMap<>();
        double weight = 1;
        for (String item : Counts.decode(recent.get(customer)).keySet()) {
            double scale = weight;
            Counts.decode(neighbours.get(item)).forEach(
                (other, count) -> scores.merge(other, (float) (scale * count), Float::sum));
            weight *= 0.4;
        }
        StringBuilder text = new StringBuilder("[");
        scores.entrySet().stream()
            .sorted(Map.Entry.<String, Float>comparingByValue().reversed().thenComparing(Map.Entry.comparingByKey()))
            .limit(LIST_SIZE)
            .forEach(entry -> text.append(text.length() > 1 ? "," : "")
                .append("{\"item_id\":\"").append(entry.getKey())
                .append("\",\"score\":").append(entry.getValue()).append('}'));
        return text.append(']').toString().getBytes(StandardCharsets.UTF_8);
    }

    private static String item(byte[] value) {
        try (JsonParser parser = JSON.createParser(value)) {
            while (parser.nextToken() != null) {
                if (parser.currentToken() == JsonToken.FIELD_NAME && "item_id".equals(parser.currentName())) {
                    return parser.nextTextValue();
                }
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return null;
    }
}
