package phicrypt.interop;

import com.amazonaws.encryptionsdk.AwsCrypto;
import com.amazonaws.encryptionsdk.CommitmentPolicy;
import com.amazonaws.encryptionsdk.CryptoAlgorithm;
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
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kms.KmsClient;
import software.amazon.cryptography.materialproviders.ICryptographicMaterialsManager;
import software.amazon.cryptography.materialproviders.IKeyring;
import software.amazon.cryptography.materialproviders.MaterialProviders;
import software.amazon.cryptography.materialproviders.model.AesWrappingAlg;
import software.amazon.cryptography.materialproviders.model.CreateAwsKmsEcdhKeyringInput;
import software.amazon.cryptography.materialproviders.model.CreateAwsKmsKeyringInput;
import software.amazon.cryptography.materialproviders.model.CreateDefaultCryptographicMaterialsManagerInput;
import software.amazon.cryptography.materialproviders.model.CreateRawAesKeyringInput;
import software.amazon.cryptography.materialproviders.model.CreateRawEcdhKeyringInput;
import software.amazon.cryptography.materialproviders.model.CreateRawRsaKeyringInput;
import software.amazon.cryptography.materialproviders.model.CreateRequiredEncryptionContextCMMInput;
import software.amazon.cryptography.materialproviders.model.EphemeralPrivateKeyToStaticPublicKeyInput;
import software.amazon.cryptography.materialproviders.model.KmsEcdhStaticConfigurations;
import software.amazon.cryptography.materialproviders.model.KmsPrivateKeyToStaticPublicKeyInput;
import software.amazon.cryptography.materialproviders.model.MaterialProvidersConfig;
import software.amazon.cryptography.materialproviders.model.PaddingScheme;
import software.amazon.cryptography.materialproviders.model.PublicKeyDiscoveryInput;
import software.amazon.cryptography.materialproviders.model.RawEcdhStaticConfigurations;
import software.amazon.cryptography.materialproviders.model.RawPrivateKeyToStaticPublicKeyInput;
import software.amazon.cryptography.primitives.model.ECDHCurveSpec;

/**
 * Reads one JSON request per line and answers with one line: {@code {"data": …}} or {@code {"error": …}}.
 *
 * <p>Operations: encrypt (under a suite by its name, with a frame length) and decrypt.
 */
public final class MessageCounterpart {

  private static final ObjectMapper JSON = new ObjectMapper();
  private static final MaterialProviders MATERIALS =
      MaterialProviders.builder()
          .MaterialProvidersConfig(MaterialProvidersConfig.builder().build())
          .build();

  private MessageCounterpart() {}

  public static void main(String[] arguments) throws Exception {
    BufferedReader requests =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream answers = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    for (String line = requests.readLine(); line != null; line = requests.readLine()) {
      ObjectNode answer = JSON.createObjectNode();
      try {
        answer.put("data", Base64.getEncoder().encodeToString(answer(JSON.readTree(line))));
      } catch (Exception error) {
        answer.put("error", error.getClass().getSimpleName() + ": " + error.getMessage());
      }
      answers.println(JSON.writeValueAsString(answer));
    }
  }

  private static byte[] answer(JsonNode request) {
    IKeyring keyring = keyring(request.get("keyring"));
    byte[] data = bytes(request, "data");
    AwsCrypto.Builder builder = AwsCrypto.builder();
    Map<String, String> context = pairs(request.get("context"));
    ICryptographicMaterialsManager manager = manager(keyring, request.get("required"));
    if (request.get("operation").asText().equals("decrypt")) {
      return builder
          .withCommitmentPolicy(CommitmentPolicy.RequireEncryptRequireDecrypt)
          .build()
          .decryptData(manager, data, context)
          .getResult();
    }
    CryptoAlgorithm suite = CryptoAlgorithm.valueOf(request.get("suite").asText());
    CommitmentPolicy policy =
        suite.isCommitting()
            ? CommitmentPolicy.RequireEncryptRequireDecrypt
            : CommitmentPolicy.ForbidEncryptAllowDecrypt;
    return builder
        .withCommitmentPolicy(policy)
        .withEncryptionAlgorithm(suite)
        .withEncryptionFrameSize(request.get("frameLength").asInt())
        .build()
        .encryptData(manager, data, context)
        .getResult();
  }

  private static Map<String, String> pairs(JsonNode context) {
    Map<String, String> pairs = new HashMap<>();
    context
        .fields()
        .forEachRemaining(pair -> pairs.put(pair.getKey(), pair.getValue().asText()));
    return pairs;
  }

  /** AWS's manager of required context where names are required, else the default one. */
  private static ICryptographicMaterialsManager manager(IKeyring keyring, JsonNode required) {
    ICryptographicMaterialsManager manager =
        MATERIALS.CreateDefaultCryptographicMaterialsManager(
            CreateDefaultCryptographicMaterialsManagerInput.builder().keyring(keyring).build());
    if (required.isEmpty()) {
      return manager;
    }
    List<String> names = new ArrayList<>();
    required.forEach(name -> names.add(name.asText()));
    return MATERIALS.CreateRequiredEncryptionContextCMM(
        CreateRequiredEncryptionContextCMMInput.builder()
            .underlyingCMM(manager)
            .requiredEncryptionContextKeys(names)
            .build());
  }

  private static IKeyring keyring(JsonNode settings) {
    switch (settings.get("kind").asText()) {
      case "raw-aes":
        return MATERIALS.CreateRawAesKeyring(
            CreateRawAesKeyringInput.builder()
                .keyNamespace(settings.get("namespace").asText())
                .keyName(settings.get("name").asText())
                .wrappingKey(buffer(settings, "wrappingKey"))
                .wrappingAlg(AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16)
                .build());
      case "raw-rsa":
        return MATERIALS.CreateRawRsaKeyring(
            CreateRawRsaKeyringInput.builder()
                .keyNamespace(settings.get("namespace").asText())
                .keyName(settings.get("name").asText())
                .paddingScheme(PaddingScheme.valueOf(settings.get("padding").asText()))
                .publicKey(buffer(settings, "publicKey"))
                .privateKey(buffer(settings, "privateKey"))
                .build());
      case "kms":
        return MATERIALS.CreateAwsKmsKeyring(
            CreateAwsKmsKeyringInput.builder()
                .kmsKeyId(settings.get("keyArn").asText())
                .kmsClient(kms(settings))
                .build());
      case "kms-ecdh":
        return MATERIALS.CreateAwsKmsEcdhKeyring(
            CreateAwsKmsEcdhKeyringInput.builder()
                .curveSpec(ECDHCurveSpec.valueOf(settings.get("curve").asText()))
                .kmsClient(kms(settings))
                .KeyAgreementScheme(
                    KmsEcdhStaticConfigurations.builder()
                        .KmsPrivateKeyToStaticPublicKey(
                            KmsPrivateKeyToStaticPublicKeyInput.builder()
                                .senderKmsIdentifier(settings.get("keyArn").asText())
                                .senderPublicKey(buffer(settings, "ownPublicKey"))
                                .recipientPublicKey(buffer(settings, "publicKey"))
                                .build())
                        .build())
                .build());
      default:
        return MATERIALS.CreateRawEcdhKeyring(
            CreateRawEcdhKeyringInput.builder()
                .curveSpec(ECDHCurveSpec.valueOf(settings.get("curve").asText()))
                .KeyAgreementScheme(scheme(settings))
                .build());
    }
  }

  private static RawEcdhStaticConfigurations scheme(JsonNode settings) {
    RawEcdhStaticConfigurations.Builder chosen = RawEcdhStaticConfigurations.builder();
    switch (settings.get("kind").asText()) {
      case "ecdh-static":
        return chosen
            .RawPrivateKeyToStaticPublicKey(
                RawPrivateKeyToStaticPublicKeyInput.builder()
                    .senderStaticPrivateKey(buffer(settings, "privateKey"))
                    .recipientPublicKey(buffer(settings, "publicKey"))
                    .build())
            .build();
      case "ecdh-ephemeral":
        return chosen
            .EphemeralPrivateKeyToStaticPublicKey(
                EphemeralPrivateKeyToStaticPublicKeyInput.builder()
                    .recipientPublicKey(buffer(settings, "publicKey"))
                    .build())
            .build();
      case "ecdh-discovery":
        return chosen
            .PublicKeyDiscovery(
                PublicKeyDiscoveryInput.builder()
                    .recipientStaticPrivateKey(buffer(settings, "privateKey"))
                    .build())
            .build();
      default:
        throw new IllegalArgumentException("unknown keyring");
    }
  }

  private static KmsClient kms(JsonNode settings) {
    return KmsClient.builder()
        .endpointOverride(URI.create(settings.get("endpoint").asText()))
        .region(Region.US_EAST_1)
        .credentialsProvider(
            StaticCredentialsProvider.create(AwsBasicCredentials.create("AKIDEXAMPLE", "secret")))
        .build();
  }

  private static byte[] bytes(JsonNode node, String name) {
    return Base64.getDecoder().decode(node.get(name).asText());
  }

  private static ByteBuffer buffer(JsonNode node, String name) {
    return ByteBuffer.wrap(bytes(node, name));
  }
}
