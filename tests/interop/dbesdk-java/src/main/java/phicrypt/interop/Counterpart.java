package phicrypt.interop;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.client.config.ClientOverrideConfiguration;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.dynamodb.DynamoDbClient;
import software.amazon.awssdk.services.dynamodb.model.AttributeValue;
import software.amazon.awssdk.services.kms.KmsClient;
import software.amazon.cryptography.dbencryptionsdk.dynamodb.DynamoDbEncryptionInterceptor;
import software.amazon.cryptography.dbencryptionsdk.dynamodb.itemencryptor.DynamoDbItemEncryptor;
import software.amazon.cryptography.dbencryptionsdk.dynamodb.itemencryptor.model.DecryptItemInput;
import software.amazon.cryptography.dbencryptionsdk.dynamodb.itemencryptor.model.DynamoDbItemEncryptorConfig;
import software.amazon.cryptography.dbencryptionsdk.dynamodb.itemencryptor.model.EncryptItemInput;
import software.amazon.cryptography.dbencryptionsdk.dynamodb.model.DynamoDbTableEncryptionConfig;
import software.amazon.cryptography.dbencryptionsdk.dynamodb.model.DynamoDbTablesEncryptionConfig;
import software.amazon.cryptography.dbencryptionsdk.structuredencryption.model.CryptoAction;
import software.amazon.cryptography.keystore.KeyStore;
import software.amazon.cryptography.keystore.model.KMSConfiguration;
import software.amazon.cryptography.keystore.model.KeyStoreConfig;
import software.amazon.cryptography.materialproviders.IKeyring;
import software.amazon.cryptography.materialproviders.MaterialProviders;
import software.amazon.cryptography.materialproviders.model.AesWrappingAlg;
import software.amazon.cryptography.materialproviders.model.CreateAwsKmsHierarchicalKeyringInput;
import software.amazon.cryptography.materialproviders.model.CreateRawAesKeyringInput;
import software.amazon.cryptography.materialproviders.model.DBEAlgorithmSuiteId;
import software.amazon.cryptography.materialproviders.model.MaterialProvidersConfig;

/**
 * Reads one JSON request per line and answers with one line: {@code {"item": …}} or {@code {"error": …}}.
 *
 * <p>Operations: encrypt, decrypt (the item encryptor), put, get (a client with the encrypting interceptor).
 */
public final class Counterpart {

  private static final ObjectMapper JSON = new ObjectMapper();
  private static final MaterialProviders MATERIALS =
      MaterialProviders.builder()
          .MaterialProvidersConfig(MaterialProvidersConfig.builder().build())
          .build();

  private Counterpart() {}

  public static void main(String[] arguments) throws Exception {
    BufferedReader requests =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream answers = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    for (String line = requests.readLine(); line != null; line = requests.readLine()) {
      ObjectNode answer = JSON.createObjectNode();
      try {
        Map<String, AttributeValue> item = answer(JSON.readTree(line));
        answer.set("item", toJson(item));
      } catch (Exception error) {
        answer.put("error", error.getClass().getSimpleName() + ": " + error.getMessage());
      }
      answers.println(JSON.writeValueAsString(answer));
    }
  }

  private static Map<String, AttributeValue> answer(JsonNode request) {
    JsonNode table = request.get("table");
    IKeyring keyring = keyring(request.get("keyring"));
    Map<String, AttributeValue> item = fromJson(request.get("item"));
    switch (request.get("operation").asText()) {
      case "encrypt":
        return encryptor(table, keyring)
            .EncryptItem(EncryptItemInput.builder().plaintextItem(item).build())
            .encryptedItem();
      case "decrypt":
        return encryptor(table, keyring)
            .DecryptItem(DecryptItemInput.builder().encryptedItem(item).build())
            .plaintextItem();
      case "put":
        client(table, keyring, request.get("endpoint").asText())
            .putItem(put -> put.tableName(table.get("name").asText()).item(item));
        return item;
      case "get":
        return client(table, keyring, request.get("endpoint").asText())
            .getItem(get -> get.tableName(table.get("name").asText()).key(item))
            .item();
      default:
        throw new IllegalArgumentException("unknown operation");
    }
  }

  private static IKeyring keyring(JsonNode settings) {
    if (settings.has("wrappingKey")) {
      return MATERIALS.CreateRawAesKeyring(
          CreateRawAesKeyringInput.builder()
              .keyNamespace(settings.get("namespace").asText())
              .keyName(settings.get("name").asText())
              .wrappingKey(ByteBuffer.wrap(Base64.getDecoder().decode(settings.get("wrappingKey").asText())))
              .wrappingAlg(AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16)
              .build());
    }
    KeyStore store =
        KeyStore.builder()
            .KeyStoreConfig(
                KeyStoreConfig.builder()
                    .ddbClient(plainClient(settings.get("endpoint").asText()))
                    .kmsClient(
                        KmsClient.builder()
                            .endpointOverride(URI.create(settings.get("kmsEndpoint").asText()))
                            .region(Region.US_EAST_1)
                            .credentialsProvider(credentials())
                            .build())
                    .ddbTableName(settings.get("storeTable").asText())
                    .logicalKeyStoreName(settings.get("logicalName").asText())
                    .kmsConfiguration(
                        KMSConfiguration.builder().kmsKeyArn(settings.get("kmsKeyArn").asText()).build())
                    .build())
            .build();
    return MATERIALS.CreateAwsKmsHierarchicalKeyring(
        CreateAwsKmsHierarchicalKeyringInput.builder()
            .keyStore(store)
            .branchKeyId(settings.get("branchKeyId").asText())
            .ttlSeconds(600)
            .build());
  }

  private static DynamoDbItemEncryptor encryptor(JsonNode table, IKeyring keyring) {
    DynamoDbItemEncryptorConfig.Builder config =
        DynamoDbItemEncryptorConfig.builder()
            .logicalTableName(table.get("logicalName").asText())
            .partitionKeyName(table.get("partitionKey").asText())
            .attributeActionsOnEncrypt(actions(table))
            .keyring(keyring)
            .algorithmSuiteId(suite(table));
    if (table.hasNonNull("sortKey")) {
      config.sortKeyName(table.get("sortKey").asText());
    }
    if (!unsigned(table).isEmpty()) {
      config.allowedUnsignedAttributes(unsigned(table));
    }
    if (table.hasNonNull("unsignedPrefix")) {
      config.allowedUnsignedAttributePrefix(table.get("unsignedPrefix").asText());
    }
    return DynamoDbItemEncryptor.builder().DynamoDbItemEncryptorConfig(config.build()).build();
  }

  private static DynamoDbClient client(JsonNode table, IKeyring keyring, String endpoint) {
    DynamoDbTableEncryptionConfig.Builder config =
        DynamoDbTableEncryptionConfig.builder()
            .logicalTableName(table.get("logicalName").asText())
            .partitionKeyName(table.get("partitionKey").asText())
            .attributeActionsOnEncrypt(actions(table))
            .keyring(keyring)
            .algorithmSuiteId(suite(table));
    if (table.hasNonNull("sortKey")) {
      config.sortKeyName(table.get("sortKey").asText());
    }
    if (!unsigned(table).isEmpty()) {
      config.allowedUnsignedAttributes(unsigned(table));
    }
    if (table.hasNonNull("unsignedPrefix")) {
      config.allowedUnsignedAttributePrefix(table.get("unsignedPrefix").asText());
    }
    DynamoDbEncryptionInterceptor interceptor =
        DynamoDbEncryptionInterceptor.builder()
            .config(
                DynamoDbTablesEncryptionConfig.builder()
                    .tableEncryptionConfigs(Map.of(table.get("name").asText(), config.build()))
                    .build())
            .build();
    return DynamoDbClient.builder()
        .endpointOverride(URI.create(endpoint))
        .region(Region.US_EAST_1)
        .credentialsProvider(credentials())
        .overrideConfiguration(
            ClientOverrideConfiguration.builder().addExecutionInterceptor(interceptor).build())
        .build();
  }

  private static DynamoDbClient plainClient(String endpoint) {
    return DynamoDbClient.builder()
        .endpointOverride(URI.create(endpoint))
        .region(Region.US_EAST_1)
        .credentialsProvider(credentials())
        .build();
  }

  private static StaticCredentialsProvider credentials() {
    return StaticCredentialsProvider.create(AwsBasicCredentials.create("testing", "testing"));
  }

  private static DBEAlgorithmSuiteId suite(JsonNode table) {
    return table.get("signed").asBoolean()
        ? DBEAlgorithmSuiteId.ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384_SYMSIG_HMAC_SHA384
        : DBEAlgorithmSuiteId.ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY_SYMSIG_HMAC_SHA384;
  }

  private static Map<String, CryptoAction> actions(JsonNode table) {
    Map<String, CryptoAction> actions = new HashMap<>();
    table
        .get("actions")
        .fields()
        .forEachRemaining(
            entry -> actions.put(entry.getKey(), CryptoAction.valueOf(entry.getValue().asText())));
    return actions;
  }

  private static List<String> unsigned(JsonNode table) {
    List<String> names = new ArrayList<>();
    table.get("unsigned").forEach(name -> names.add(name.asText()));
    return names;
  }

  private static Map<String, AttributeValue> fromJson(JsonNode item) {
    Map<String, AttributeValue> attributes = new HashMap<>();
    item.fields()
        .forEachRemaining(entry -> attributes.put(entry.getKey(), value(entry.getValue())));
    return attributes;
  }

  private static AttributeValue value(JsonNode tagged) {
    Map.Entry<String, JsonNode> entry = tagged.fields().next();
    JsonNode content = entry.getValue();
    AttributeValue.Builder builder = AttributeValue.builder();
    switch (entry.getKey()) {
      case "S":
        return builder.s(content.asText()).build();
      case "N":
        return builder.n(content.asText()).build();
      case "B":
        return builder.b(bytes(content)).build();
      case "BOOL":
        return builder.bool(content.asBoolean()).build();
      case "NULL":
        return builder.nul(true).build();
      case "SS":
        return builder.ss(texts(content)).build();
      case "NS":
        return builder.ns(texts(content)).build();
      case "BS":
        List<SdkBytes> members = new ArrayList<>();
        content.forEach(member -> members.add(bytes(member)));
        return builder.bs(members).build();
      case "L":
        List<AttributeValue> values = new ArrayList<>();
        content.forEach(member -> values.add(value(member)));
        return builder.l(values).build();
      case "M":
        return builder.m(fromJson(content)).build();
      default:
        throw new IllegalArgumentException("unknown type tag");
    }
  }

  private static SdkBytes bytes(JsonNode content) {
    return SdkBytes.fromByteArray(
        Base64.getDecoder().decode(content.asText()));
  }

  private static List<String> texts(JsonNode content) {
    List<String> texts = new ArrayList<>();
    content.forEach(member -> texts.add(member.asText()));
    return texts;
  }

  private static ObjectNode toJson(Map<String, AttributeValue> item) {
    ObjectNode json = JSON.createObjectNode();
    item.forEach((name, value) -> json.set(name, toJson(value)));
    return json;
  }

  private static ObjectNode toJson(AttributeValue value) {
    ObjectNode json = JSON.createObjectNode();
    switch (value.type()) {
      case S:
        return json.put("S", value.s());
      case N:
        return json.put("N", value.n());
      case B:
        return json.put("B", base64(value.b()));
      case BOOL:
        return json.put("BOOL", value.bool());
      case NUL:
        return json.put("NULL", true);
      case SS:
        value.ss().forEach(json.putArray("SS")::add);
        return json;
      case NS:
        value.ns().forEach(json.putArray("NS")::add);
        return json;
      case BS:
        var members = json.putArray("BS");
        value.bs().forEach(member -> members.add(base64(member)));
        return json;
      case L:
        var values = json.putArray("L");
        value.l().forEach(member -> values.add(toJson(member)));
        return json;
      case M:
        json.set("M", toJson(value.m()));
        return json;
      default:
        throw new IllegalArgumentException("unknown type");
    }
  }

  private static String base64(SdkBytes bytes) {
    return Base64.getEncoder().encodeToString(bytes.asByteArray());
  }
}
