package bench;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.LinkedHashMap;
import java.util.Map;

/** Names with counts, as bytes. */
final class Counts {
    private Counts() {}

    static byte[] encode(Map<String, Float> counts) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream(16 * counts.size());
        DataOutputStream out = new DataOutputStream(bytes);
        try {
            for (Map.Entry<String, Float> entry : counts.entrySet()) {
                out.writeUTF(entry.getKey());
                out.writeFloat(entry.getValue());
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return bytes.toByteArray();
    }

    static Map<String, Float> decode(byte[] value) {
        Map<String, Float> counts = new LinkedHashMap<>();
        if (value == null) {
            return counts;
        }
        DataInputStream in = new DataInputStream(new ByteArrayInputStream(value));
        try {
            while (in.available() > 0) {
                String name = in.readUTF();
                counts.put(name, in.readFloat());
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return counts;
    }
}
