// The counterpart of tests/interop/test_esdk_go.py: the AWS Encryption SDK for Go.
//
// Reads one JSON request per line and answers with one line: {"data": …} or {"error": …}.
// Operations: encrypt, decrypt, create-key and version-key (of a branch key store).
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"

	keystore "github.com/aws/aws-cryptographic-material-providers-library/releases/go/mpl/awscryptographykeystoresmithygenerated"
	keystoretypes "github.com/aws/aws-cryptographic-material-providers-library/releases/go/mpl/awscryptographykeystoresmithygeneratedtypes"
	mpl "github.com/aws/aws-cryptographic-material-providers-library/releases/go/mpl/awscryptographymaterialproviderssmithygenerated"
	mpltypes "github.com/aws/aws-cryptographic-material-providers-library/releases/go/mpl/awscryptographymaterialproviderssmithygeneratedtypes"
	primitives "github.com/aws/aws-cryptographic-material-providers-library/releases/go/primitives/awscryptographyprimitivessmithygeneratedtypes"
	esdk "github.com/aws/aws-encryption-sdk/releases/go/encryption-sdk/awscryptographyencryptionsdksmithygenerated"
	esdktypes "github.com/aws/aws-encryption-sdk/releases/go/encryption-sdk/awscryptographyencryptionsdksmithygeneratedtypes"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

type settings struct {
	Kind        string `json:"kind"`
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	WrappingKey []byte `json:"wrappingKey"`
	Padding     string `json:"padding"`
	PublicKey   []byte `json:"publicKey"`
	PrivateKey  []byte `json:"privateKey"`
	Curve       string `json:"curve"`
	Table       string `json:"table"`
	LogicalName string `json:"logicalName"`
	KeyArn      string `json:"keyArn"`
	BranchKeyId string `json:"branchKeyId"`
	DynamoDbUrl string `json:"dynamodbUrl"`
	KmsUrl      string `json:"kmsUrl"`
	AccessKeyId string `json:"accessKeyId"`
	SecretKey   string `json:"secretKey"`
}

type request struct {
	Operation   string            `json:"operation"`
	Keyring     settings          `json:"keyring"`
	Data        []byte            `json:"data"`
	Context     map[string]string `json:"context"`
	Signed      bool              `json:"signed"`
	FrameLength int64             `json:"frameLength"`
}

func main() {
	requests := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := requests.ReadBytes('\n')
		if err != nil {
			return
		}
		answer := map[string]string{}
		if data, err := answerTo(line); err != nil {
			answer["error"] = err.Error()
		} else {
			answer["data"] = base64.StdEncoding.EncodeToString(data)
		}
		encoded, _ := json.Marshal(answer)
		fmt.Println(string(encoded))
	}
}

func answerTo(line []byte) ([]byte, error) {
	var asked request
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, err
	}
	ctx := context.Background()
	switch asked.Operation {
	case "create-key":
		store, err := storeOf(asked.Keyring)
		if err != nil {
			return nil, err
		}
		_, err = store.CreateKey(ctx, keystoretypes.CreateKeyInput{
			BranchKeyIdentifier: &asked.Keyring.BranchKeyId, EncryptionContext: asked.Context})
		return nil, err
	case "version-key":
		store, err := storeOf(asked.Keyring)
		if err != nil {
			return nil, err
		}
		_, err = store.VersionKey(ctx, keystoretypes.VersionKeyInput{BranchKeyIdentifier: asked.Keyring.BranchKeyId})
		return nil, err
	}
	client, err := esdk.NewClient(esdktypes.AwsEncryptionSdkConfig{})
	if err != nil {
		return nil, err
	}
	keyring, err := keyringOf(ctx, asked.Keyring)
	if err != nil {
		return nil, err
	}
	if asked.Operation == "decrypt" {
		opened, err := client.Decrypt(ctx, esdktypes.DecryptInput{Ciphertext: asked.Data, Keyring: keyring})
		if err != nil {
			return nil, err
		}
		return opened.Plaintext, nil
	}
	suite := mpltypes.ESDKAlgorithmSuiteIdAlgAes256GcmHkdfSha512CommitKey
	if asked.Signed {
		suite = mpltypes.ESDKAlgorithmSuiteIdAlgAes256GcmHkdfSha512CommitKeyEcdsaP384
	}
	sealed, err := client.Encrypt(ctx, esdktypes.EncryptInput{
		Plaintext: asked.Data, EncryptionContext: asked.Context, Keyring: keyring,
		AlgorithmSuiteId: &suite, FrameLength: &asked.FrameLength})
	if err != nil {
		return nil, err
	}
	return sealed.Ciphertext, nil
}

func keyringOf(ctx context.Context, of settings) (mpltypes.IKeyring, error) {
	providers, err := mpl.NewClient(mpltypes.MaterialProvidersConfig{})
	if err != nil {
		return nil, err
	}
	switch of.Kind {
	case "raw-aes":
		return providers.CreateRawAesKeyring(ctx, mpltypes.CreateRawAesKeyringInput{
			KeyNamespace: of.Namespace, KeyName: of.Name, WrappingKey: of.WrappingKey,
			WrappingAlg: mpltypes.AesWrappingAlgAlgAes256GcmIv12Tag16})
	case "raw-rsa":
		return providers.CreateRawRsaKeyring(ctx, mpltypes.CreateRawRsaKeyringInput{
			KeyNamespace: of.Namespace, KeyName: of.Name, PublicKey: of.PublicKey, PrivateKey: of.PrivateKey,
			PaddingScheme: mpltypes.PaddingScheme(of.Padding)})
	case "ecdh-static":
		return providers.CreateRawEcdhKeyring(ctx, mpltypes.CreateRawEcdhKeyringInput{
			CurveSpec: primitives.ECDHCurveSpec(of.Curve),
			KeyAgreementScheme: &mpltypes.RawEcdhStaticConfigurationsMemberRawPrivateKeyToStaticPublicKey{
				Value: mpltypes.RawPrivateKeyToStaticPublicKeyInput{
					SenderStaticPrivateKey: of.PrivateKey, RecipientPublicKey: of.PublicKey}}})
	case "hierarchy":
		store, err := storeOf(of)
		if err != nil {
			return nil, err
		}
		return providers.CreateAwsKmsHierarchicalKeyring(ctx, mpltypes.CreateAwsKmsHierarchicalKeyringInput{
			KeyStore: store, BranchKeyId: &of.BranchKeyId, TtlSeconds: 600})
	}
	return nil, fmt.Errorf("unknown keyring %q", of.Kind)
}

func storeOf(of settings) (*keystore.Client, error) {
	config := aws.Config{
		Region:      "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(of.AccessKeyId, of.SecretKey, "")}
	return keystore.NewClient(keystoretypes.KeyStoreConfig{
		DdbTableName:        of.Table,
		LogicalKeyStoreName: of.LogicalName,
		KmsConfiguration:    &keystoretypes.KMSConfigurationMemberkmsKeyArn{Value: of.KeyArn},
		DdbClient:           dynamodb.NewFromConfig(config, func(o *dynamodb.Options) { o.BaseEndpoint = &of.DynamoDbUrl }),
		KmsClient:           kms.NewFromConfig(config, func(o *kms.Options) { o.BaseEndpoint = &of.KmsUrl }),
	})
}
