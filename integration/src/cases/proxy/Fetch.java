import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Fetches a URL by both clients of the JDK, which are told of no proxy and of no certificate. */
class Fetch {
    public static void main(String[] args) throws Exception {
        var uri = URI.create(args[0]);
        System.out.print("STREAM: ");
        try (var in = uri.toURL().openStream()) {
            in.transferTo(System.out);
        }
        var request = HttpRequest.newBuilder(uri).build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        System.out.print("CLIENT: " + answer.body());
    }
}
